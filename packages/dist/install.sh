#!/usr/bin/env bash
# Installs the package that it stands in: no compiler is needed. Takes the options of build-install.sh, see --help.
set -euo pipefail
exec "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/build-install.sh" "$@"
