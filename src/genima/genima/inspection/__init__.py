"""What is inside checkpoints and datasets: text for a screen, and a contact sheet."""
