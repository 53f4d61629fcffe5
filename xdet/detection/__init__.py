"""From pictures to boxes: one detector, batches of pictures, the embedded model, and what is printed."""
