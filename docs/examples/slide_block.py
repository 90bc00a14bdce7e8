"""Slide a block to a side."""

from genima_sim.motions import MoveTo, top_down_grasp
from genima_sim.parts import add_box
from genima_sim.task import Region, SceneObject, Task


class Block(SceneObject):
    name = "block"
    radius = 0.1  # m, kept free of other objects
    region = Region(x=(0.45, 0.55), y=(-0.05, 0.05))  # m in the base frame

    def build(self, spec):
        block = spec.worldbody.add_body(name="block", pos=[0, 0, 0.0405])
        block.add_freejoint(name="block")
        add_box(block, [0, 0, 0], [0.03, 0.03, 0.04], [0.1, 0.6, 0.2], mass=0.1)


class SlideBlock(Task):
    instructions = ("slide the block to the {side}",)
    variations = ({"side": "left"}, {"side": "right"})
    objects = (Block(),)

    def succeeded(self, state):
        side = 1 if self.values["side"] == "left" else -1
        return side * (state.position("block")[1] - state.placements["block"].y) > 0.05

    def motions(self, scene):
        side = 1 if self.values["side"] == "left" else -1
        x, y, _ = scene.body("block")[:3, 3]
        # at least 1.8 s, with the gripper closed
        yield MoveTo(top_down_grasp(x, y - 0.12 * side, 0.15), 1.8, 0.0, straight=False)
        yield MoveTo(top_down_grasp(x, y - 0.12 * side, 0.05), 1.0, 0.0)
        yield MoveTo(top_down_grasp(x, y + 0.08 * side, 0.05), 2.0, 0.0)
