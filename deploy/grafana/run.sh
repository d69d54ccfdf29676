#!/usr/bin/env bash
# Starts a Grafana of this machine with the dashboards and the data source, for looking at a running `tailsight up`.
# It downloads nothing unless GRAFANA_DOWNLOAD=1 says so, listens on this machine only, and keeps all it writes below
# DATA/grafana. Used by `make grafana`.
#
#   DATA               data directory of the server (default: data)
#   GRAFANA            program to start (default: grafana-server or grafana on the PATH)
#   GRAFANA_PORT       default 3000
#   GRAFANA_PLUGINS    folder with grafana-clickhouse-datasource (default: DATA/grafana/plugins, else Grafana's own)
#   GRAFANA_IMAGE      for Docker, default grafana/grafana:13.0.1
#   GRAFANA_DOWNLOAD   1: the image and the data source's plugin may be fetched
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
data=${DATA:-data}
port=${GRAFANA_PORT:-3000}
image=${GRAFANA_IMAGE:-grafana/grafana:13.0.1}
download=${GRAFANA_DOWNLOAD:-0}
plugin=grafana-clickhouse-datasource

say() { printf '%s\n' "$*" >&2; }
stop() { say "make grafana: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

program=${GRAFANA:-}
if [ -n "$program" ]; then
	command -v "$program" >/dev/null || stop "GRAFANA names $program, which is no program"
else
	for name in grafana-server grafana /usr/share/grafana/bin/grafana; do
		if command -v "$name" >/dev/null; then program=$(command -v "$name"); break; fi
	done
fi
docker=
if [ -z "$program" ] && command -v docker >/dev/null && docker info >/dev/null 2>&1; then
	if docker image inspect "$image" >/dev/null 2>&1 || [ "$download" = 1 ]; then
		docker=1
	else
		stop "the image $image is not here, and nothing is fetched unasked" "GRAFANA_DOWNLOAD=1 make grafana    fetches it"
	fi
fi
[ -n "$program$docker" ] || stop "there is neither a Grafana nor a Docker that answers on this machine" \
	"Install Grafana (https://grafana.com/grafana/download) or Docker, or set GRAFANA to the program." \
	"For a Grafana elsewhere: tailsight dashboards push --url URL (docs/grafana.md)."

mkdir -p "$data/grafana"
work=$(cd "$data/grafana" && pwd)
mkdir -p "$work/plugins" "$work/db" "$work/logs"

# Where the server is: server.json says it while it runs.
host=127.0.0.1 door=8472
if [ -f "$data/server.json" ]; then
	address=$(sed -n 's/.*"url": *"http:\/\/\([^"\/]*\).*/\1/p' "$data/server.json")
	[ -n "$address" ] && host=${address%:*} door=${address##*:}
else
	say "No server runs in $data: the dashboards stay empty until 'make up' does."
fi

rm -rf "$work/provisioning"
cp -r "$here/provisioning" "$work/provisioning"
mkdir -p "$work/provisioning/plugins"
sed -i "s|path: /var/lib/grafana/tailsight|path: $here/dashboards|" "$work/provisioning/dashboards/tailsight.yaml"
sed -i "s|host: 127.0.0.1|host: $host|; s|port: 8472|port: $door|" "$work/provisioning/datasources/tailsight.yaml"

plugins=${GRAFANA_PLUGINS:-$work/plugins}
if [ -z "${GRAFANA_PLUGINS:-}" ] && [ -z "$docker" ] && [ ! -d "$plugins/$plugin" ] && [ -d "/var/lib/grafana/plugins/$plugin" ]; then
	plugins=/var/lib/grafana/plugins
fi
preinstall=
if [ ! -d "$plugins/$plugin" ]; then
	[ "$download" = 1 ] || stop "the data source's plugin $plugin is not in $plugins" \
		"GRAFANA_DOWNLOAD=1 make grafana    lets Grafana fetch it" \
		"GRAFANA_PLUGINS=FOLDER make grafana    where you have it unpacked"
	preinstall=$plugin
fi

settings=(
	"GF_SERVER_HTTP_ADDR=127.0.0.1" "GF_SERVER_HTTP_PORT=$port"
	"GF_PATHS_DATA=$work/db" "GF_PATHS_LOGS=$work/logs" "GF_PATHS_PLUGINS=$plugins" "GF_PATHS_PROVISIONING=$work/provisioning"
	"GF_AUTH_ANONYMOUS_ENABLED=true" "GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer"
	"GF_ANALYTICS_REPORTING_ENABLED=false" "GF_ANALYTICS_CHECK_FOR_UPDATES=false"
	"GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false" "GF_NEWS_NEWS_FEED_ENABLED=false"
	"GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=$here/dashboards/tailsight-overview.json"
	"TAILSIGHT_SQL_TOKEN=${TAILSIGHT_SQL_TOKEN:-}"
)
if [ -n "$preinstall" ]; then
	settings+=("GF_PLUGINS_PREINSTALL_SYNC=$preinstall")
else
	settings+=("GF_PLUGINS_PREINSTALL_DISABLED=true")
fi

cat <<TEXT
Grafana: http://127.0.0.1:$port/d/tailsight-overview    (Ctrl-C ends it; its files are in $work)

Three clicks from the page to the cause:
  1. Overview, table "Paths, slowest tail first": a path
  2. Path, table "Stages": the stage with the longest tail
  3. Stage, table "Slowest percent against the rest": host, label or outcome that the slow ones share
  or from the path's "Slowest messages": a key, and what happened to that one message
TEXT

if [ -n "$docker" ]; then
	arguments=(--rm --network host --user "$(id -u):0" --volume "$work:$work" --volume "$here:$here:ro")
	[ "$plugins" = "$work/plugins" ] || arguments+=(--volume "$plugins:$plugins:ro")
	for one in "${settings[@]}"; do arguments+=(--env "$one"); done
	pull=never; [ "$download" = 1 ] && pull=missing
	exec docker run --pull "$pull" "${arguments[@]}" "$image"
fi
home=${GRAFANA_HOME:-$(dirname "$(dirname "$(readlink -f "$program")")")}
[ -d "$home/conf" ] || home=/usr/share/grafana
verb=(server); case "$(basename "$program")" in grafana-server) verb=() ;; esac
exec env "${settings[@]}" "$program" "${verb[@]}" --homepath "$home"
