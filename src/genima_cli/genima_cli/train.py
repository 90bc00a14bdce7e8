"""``./genima train``: training commands."""

from __future__ import annotations

from genima.system.command_group import Command, CommandGroup

COMMANDS = {
    "diffusion": Command("genima_cli.train_diffusion", "the diffusion agent, on a dataset of drawn targets"),
    "controller": Command("genima_cli.train_controller", "the controller, on the same dataset or on random poses"),
    "act": Command("genima_cli.train_act", "the baseline ACT, on the camera images of the same dataset"),
    "diffusion_policy": Command("genima_cli.train_diffusion_policy", "the baseline diffusion policy, likewise"),
    "susie": Command("genima_cli.train_susie", "the baseline SuSIE, which draws the image of a goal"),
    "video_policy": Command("genima_cli.train_video_policy", "a video model, and a diffusion policy on its features"),
    "diffuser_actor": Command("genima_cli.train_diffuser_actor", "the baseline 3D Diffuser Actor, on states of demos"),
    "tiny": Command("genima_cli.train_tiny", "a small policy from nothing: simulated demos, targets, on a CPU"),
}
_HINT = "Example: ./genima train tiny --episodes 200\n./genima train COMMAND --help explains a command's arguments."
main = CommandGroup("train", COMMANDS, _HINT).run
