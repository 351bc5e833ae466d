"""Colors, 8-bit RGB, of what people and plain backgrounds may have, by the words that captions and factors use."""

from .canvas import Color

SKIN: dict[str, Color] = {
    "porcelain": (254, 219, 195), "light": (243, 193, 152), "tan": (224, 166, 118),
    "olive": (198, 150, 104), "brown": (150, 98, 66), "dark": (104, 68, 50),
}  # fmt: skip
HAIR: dict[str, Color] = {
    "black": (42, 38, 46), "brown": (98, 62, 42), "auburn": (142, 58, 44), "ginger": (220, 116, 44),
    "blond": (242, 204, 112), "silver": (196, 200, 210), "pink": (240, 120, 170), "teal": (40, 160, 164),
}  # fmt: skip
IRIS: dict[str, Color] = {
    "brown": (98, 58, 34), "hazel": (168, 114, 44), "green": (62, 142, 78), "blue": (50, 122, 204),
    "grey": (120, 134, 150),
}  # fmt: skip
CLOTHES: dict[str, Color] = {
    "red": (212, 50, 54), "orange": (244, 138, 44), "yellow": (248, 206, 64), "green": (52, 152, 84),
    "blue": (46, 96, 196), "purple": (132, 76, 176), "pink": (244, 138, 178), "white": (244, 244, 240),
    "black": (50, 50, 58),
}  # fmt: skip
FRAMES: dict[str, Color] = {"black": (30, 30, 36), "red": (196, 36, 50), "blue": (32, 72, 160), "gold": (206, 158, 50)}
PLAIN: dict[str, Color] = {  # backgrounds
    "grey": (188, 192, 196), "yellow": (246, 214, 110), "green": (148, 204, 150), "blue": (128, 178, 230),
    "pink": (244, 172, 190),
}  # fmt: skip
DARK: Color = (46, 30, 34)
WHITE: Color = (255, 255, 255)
