"""Textures of the installed robosuite package (MIT licence), and of other sources, on geoms."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from genima.robot.body import asset_folder

TEXTURES = (
    *("blue-wood", "brass-ambra", "clay", "cream-plaster", "dark-wood", "dirt", "gray-felt", "gray-woodgrain"),
    *("green-wood", "light-gray-floor-tile", "pink-plaster", "red-wood", "steel-brushed", "white-bricks"),
    *("wood-tiles", "wood-varnished-panels", "yellow-plaster"),
)


def random_texture(rng: np.random.Generator) -> str:
    """Return the file of one of the textures."""
    return str(asset_folder() / "textures" / f"{TEXTURES[rng.integers(len(TEXTURES))]}.png")


def cover(spec: mujoco.MjSpec, geom: mujoco.MjsGeom, name: str, repeat: float, **texture: Any) -> None:
    """Cover a geom with a texture, under a name, ``repeat`` times along each side; ``texture`` is its source."""
    spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, **texture)
    material = spec.add_material(name=name, texrepeat=[repeat, repeat], specular=0, shininess=0)
    textures = list(material.textures)
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    material.textures = textures
    geom.material = name
    geom.rgba = [0.5, 0.5, 0.5, 1]  # MuJoCo's default, with which the material's colour counts


def find_floor(spec: mujoco.MjSpec) -> mujoco.MjsGeom:
    """Return the floor of the scene."""
    return next(geom for geom in spec.worldbody.geoms if geom.type == mujoco.mjtGeom.mjGEOM_PLANE)
