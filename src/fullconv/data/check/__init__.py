"""What is wrong with a data set: what its files hold, and the rules that look at it."""
