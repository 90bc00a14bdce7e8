"""Control: joint trajectories, chunk splicing and the command guard."""
