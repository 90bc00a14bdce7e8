"""Networks that predict action chunks from images, joints and text, and the model around them."""
