"""The static leaderboard, rendered from result files alone; imports no torch."""
