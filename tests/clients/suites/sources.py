"""Source distributions of installed packages, whose tests are not part of what is installed."""

import subprocess
import sys
import tarfile
from pathlib import Path


def unpacked(requirement: str, folder: Path, *, python: str = sys.executable, part: str = "") -> Path:
    """Download a source distribution, unpack the folder ``part`` of it, and return the path of that folder."""
    download = [python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--no-binary", ":all:", "--dest", str(folder), requirement], check=True)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        members = [member for member in package.getmembers() if f"/{part}/".replace("//", "/") in f"{member.name}/"]
        package.extractall(folder, members=members, filter="data")
    archive.unlink()
    [root] = (path for path in folder.iterdir() if path.is_dir())
    return root / part
