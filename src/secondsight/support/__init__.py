"""What every other folder uses: errors, files, memory, and the guard around a user's model."""
