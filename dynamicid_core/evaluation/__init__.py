"""What asks a ComfyUI server for pictures, as its page does; never imports ComfyUI."""
