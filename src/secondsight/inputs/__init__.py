"""Raw inputs (photographs, texts, sound) as models want them, and where their parts lie."""
