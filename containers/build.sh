#!/usr/bin/env bash
# containers/build.sh jetpack6|jetpack7|cpu [options of docker build]: builds the image fgsbir-edge:TARGET. docs/jetson.md tells more.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-}
case $target in
  jetpack6 | jetpack7) recipe=jetson ;;
  cpu) recipe=cpu ;;
  *)
    echo "usage: containers/build.sh jetpack6|jetpack7|cpu [options of docker build]" >&2
    exit 2
    ;;
esac
# shellcheck source=containers/images.env
. containers/images.env
name=${target^^}
image=${name}_IMAGE python=${name}_PYTHON sm=${name}_SM
exec docker build --file "containers/$recipe.Dockerfile" --tag "fgsbir-edge:$target" \
  --build-arg "BASE_IMAGE=${!image}" --build-arg "PYTHON=${!python}" --build-arg "SM=${!sm}" "${@:2}" .
