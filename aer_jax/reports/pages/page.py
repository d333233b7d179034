"""A template and its content as one self-contained file: it loads nothing and can be sent around."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_bytes
from aer_jax.files.tables import number, percent
from aer_jax.reports import table

_HERE = Path(__file__).parent


def write_page(template: str, content: dict[str, Any], out: Path) -> None:
    """Fill a template of this package and write it, whole or not at all.

    Args:
        template: its file name.
        content: what it names; the pages' common style is its `css`, the report's script
            is `script`, and the base64 of its SHA-256 `digest`.
        out: the file.

    Raises:
        UserError: `out` cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "percent": percent, "span": table.span}
    css, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "explorer.js"))
    # A page that runs this script alone, whatever else finds its way into it, and loads nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template(template).render(content, css=Markup(css), script=Markup(script), digest=digest)
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(out, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"cannot write the page {out}: {error.strerror}; choose another --out.") from None
