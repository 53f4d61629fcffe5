"""Average precision by named protocol: how detections are matched, ranked and averaged."""
