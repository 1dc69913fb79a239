"""Model families. An encoder prepares inputs, gives hidden states at a layer, and maps them on to the embedding."""
