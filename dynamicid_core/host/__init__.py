"""The only room that knows ComfyUI: everything here may import the host, nothing outside it does."""
