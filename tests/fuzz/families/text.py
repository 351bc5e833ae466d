"""Text that breaks logs, file systems and pages."""

from random import Random

ODD = (
    "a\nb",
    "a\r\nb\tc",
    "\x1b[2J\x1b[31mred",
    "\udc80\ud800",
    "caf\udce9",
    "evil\u202egnp.exe",
    "a\u2028b\u2029c",
    "\0",
    "\x85\x9b",
    "\ufeffbom",
    "\u200b\u200d\u2066",
    "\U000e0041tag",
    "%s%n{}{0.__class__}",
    "愛麗絲",
    "e\u0301" * 40,
    "👩‍🚀",
)


def odd_text(rng: Random, longest: int = 2_000_000) -> str:
    """Return a text that is odd in one way, sometimes long."""
    text = rng.choice((*ODD, "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(9))))
    return text * (rng.choice((1, 1, 1, 300, longest)) // len(text) + 1)
