#!/bin/sh
# Makes sure that redis-server is in PATH, which the tests start on free ports.
# Installs it where that needs no question: as root, with apt-get.
# Anywhere else it says how, and exits 1.
set -eu

if found=$(command -v redis-server); then
  echo "redis-server: $found ($("$found" --version | cut -d' ' -f1-3))"
  exit 0
fi

say() { echo "install-redis: $*" >&2; }

refuse() {
  say "redis-server is not in PATH, and the tests need a real one."
  say "$1"
  exit 1
}

manual="install Redis 7 or later from https://redis.io/docs/latest/operate/oss_and_stack/install/ and put redis-server in PATH"

if ! command -v apt-get >/dev/null 2>&1; then
  if command -v dnf >/dev/null 2>&1; then
    refuse "run: sudo dnf install -y redis   (where there is no such package: valkey-compat-redis)"
  elif command -v apk >/dev/null 2>&1; then
    refuse "run, as root: apk add redis"
  elif command -v brew >/dev/null 2>&1; then
    refuse "run: brew install redis"
  fi
  refuse "$manual"
fi

if [ "$(id -u)" -ne 0 ]; then
  refuse "run: sudo sh deploy/install-redis.sh"
fi

# Debian's package starts its service on port 6379 as it is installed. The tests
# want the program alone, and docker-compose.yml wants the port.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

say "installing redis-server with apt-get"
export DEBIAN_FRONTEND=noninteractive
# A stale or unreachable package list matters only if the install then fails.
apt-get update -q >&2 || say "apt-get update failed; trying with the package list at hand"
apt-get install -q -y --no-install-recommends redis-server >&2 ||
  refuse "apt-get could not install it; $manual"

found=$(command -v redis-server) || refuse "apt-get installed it outside PATH; $manual"
echo "redis-server: $found ($("$found" --version | cut -d' ' -f1-3))"
