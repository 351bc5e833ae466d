"""DynamicID's method on its own: networks, attention, files, values. Only `host` imports ComfyUI."""
