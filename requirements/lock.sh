#!/usr/bin/env bash
# Resolves pyproject.toml into the two hash-pinned files beside this script. Needs uv (pip install uv).
# tailsight-probe lives in this repository (collector/probe) and is installed from it, so it is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed '/"tailsight-probe==/d' pyproject.toml > "$work/pyproject.toml"
printf 'editables>=0.5\nhatchling==1.33.0\nsetuptools>=80\n' > "$work/build.in"
out=$PWD/requirements
common=(--quiet --generate-hashes --python-version 3.11 --no-header --no-annotate "$@")
extras=(--extra server --extra clock --extra otlp --extra packets --extra report)
(cd "$work" && uv pip compile "${common[@]}" pyproject.toml build.in "${extras[@]}" --group test --group bench -o "$out/dev.txt")
# The runtime set is a subset at the same versions.
(cd "$work" && uv pip compile "${common[@]}" pyproject.toml build.in "${extras[@]}" -c <(grep -o '^[a-z0-9-]*==[^ ]*' "$out/dev.txt") -o "$out/runtime.txt")
