"""What models, loaders and batches say of themselves, and predictions made with them."""
