#!/usr/bin/env bash
# Installs the programs that the tests need beside Python's packages: chromium, and pdflatex with xcolor.
set -euo pipefail
packages=(chromium texlive-latex-recommended)

fail() {
  echo "make test needs chromium and pdflatex on the PATH; on Debian, as root: apt-get install ${packages[*]}" >&2
  exit 1
}

command -v apt-get >/dev/null || fail
as_root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || fail
  as_root=(sudo -n)
fi
echo "installing ${packages[*]}, which the tests need"
export DEBIAN_FRONTEND=noninteractive
{ "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >/dev/null || fail
command -v chromium >/dev/null && command -v pdflatex >/dev/null || fail
