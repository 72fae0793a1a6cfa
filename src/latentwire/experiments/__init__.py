"""What is made of runs once they are over: a report."""
