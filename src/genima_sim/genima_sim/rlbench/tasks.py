"""Tasks of RLBench in the GENIMA paper, and its evaluation protocol."""

from __future__ import annotations

import difflib

from genima.errors import GenimaError

# Source: Shridhar, Lo, James, Generative Image as Action Models (2024), appendix A; names of RLBench's files.
TASKS = (
    "basketball_in_hoop",
    "insert_usb_in_computer",
    "move_hanger",
    "open_box",
    "open_door",
    "open_drawer",
    "open_grill",
    "open_microwave",
    "open_washing_machine",
    "open_window",
    "phone_on_base",
    "pick_up_cup",
    "play_jenga",
    "press_switch",
    "push_button",
    "put_books_on_bookshelf",
    "put_knife_on_chopping_board",
    "put_rubbish_in_bin",
    "scoop_with_spatula",
    "slide_block_to_target",
    "take_lid_off_saucepan",
    "take_plate_off_colored_dish_rack",
    "toilet_seat_up",
    "lamp_on",
    "turn_tap",
)
# Section 3 of the paper: an episode scores 0 or 100, a task the mean of 50 episodes of its variation 0.
EPISODES, VARIATION = 50, 0
ROBOT = "panda_franka_hand"  # RLBench's arm, a name in config/robots
RATE = 20.0  # Hz, of RLBench's steps
STEPS = 200  # after which an episode has failed; the released code's limit


def require_task(name: str) -> None:
    """Raise a GenimaError for an unknown task, naming the nearest."""
    if name not in TASKS:
        guess = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {guess[0]}?" if guess else f"; they are {', '.join(TASKS)}"
        raise GenimaError(f"task {name!r}: unknown; take one of the paper's tasks of RLBench{hint}")
