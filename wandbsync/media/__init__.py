"""Files of a run, brought into a folder: `choose` says which, `download` fetches them, each checked before it shows.

    all files --choose, by globs--> some --flat_names--> one folder --download--> FileResult each + metadata.json

    globs     which files are meant          content     bytes: checked, copied, kept by their md5 for later
    names     what each is called there      record      what became of each, and what metadata.json says of it
    fetch     carries it out

Names, sizes and bytes come from strangers. Nothing here talks to a server: `urls` and `get` do, and they may be None.
"""

from .fetch import Link, download
from .globs import IMAGES, choose
from .names import flat_names
from .record import COPIED, DOWNLOADED, FAILED, UNCHANGED, FileResult

__all__ = [
    "COPIED",
    "DOWNLOADED",
    "FAILED",
    "IMAGES",
    "UNCHANGED",
    "FileResult",
    "Link",
    "choose",
    "download",
    "flat_names",
]
