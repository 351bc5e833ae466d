"""Evaluation: queues graphs on a ComfyUI server and measures the images that it saves; never imports ComfyUI."""
