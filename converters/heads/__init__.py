"""Detection heads as ONNX nodes: raw head tensor in, the contract's five outputs out."""
