"""From images and a teacher to a student in one call: which teacher, which steps, and their result."""
