"""Ways to look at an explanation: figures, the terminal, and one page. Data and view are kept apart."""
