# Sourced by the scripts beside it: finds Python and keeps the checkout's .venv.
#
#   $here     the checkout
#   $python   the interpreter, after `environment EXTRAS`
#
# PYTHON=… uses that interpreter with what it has installed and makes no .venv.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Packages of the operating system that the tests use.
test_packages=(isync neomutt libsasl2-modules postfix opendkim openssl iproute2 chromium fonts-noto-core shadowsocks-libev coturn pebble)

say() { echo "$*" >&2; }

as_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_updated=
apt_install() {
    if [ -z "$apt_updated" ]; then
        apt-get update -qq >&2 || true
        apt_updated=1
    fi
    if [[ " $* " = *' postfix '* ]] && ! [ -e /etc/postfix/main.cf ]; then
        # The tests run it with their own configuration; this machine's port 25 is not touched.
        debconf-set-selections <<<'postfix postfix/main_mailer_type select No configuration'
    fi
    local proxy_before
    proxy_before=$(command -v ss-server || true)
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 || return
    if [ -z "$proxy_before" ] && command -v ss-server >/dev/null; then
        # The tests use its client; its server is not for this machine, nor for our port.
        systemctl disable --now --quiet shadowsocks-libev >/dev/null 2>&1 || true
    fi
}

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local base=$1
    "$base" -m venv "$venv" >&2 && return
    rm -rf "$venv"
    as_root_with_apt || {
        say "$base cannot make a virtual environment. On Debian: apt-get install python3-venv"
        return 1
    }
    local version
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say 'Installing python3-venv.'
    apt_install python3-venv || return 1
    "$base" -m venv "$venv" >&2 && return
    rm -rf "$venv"
    apt_install "python$version-venv" && "$base" -m venv "$venv" >&2
}

# environment [EXTRAS]: make or update .venv so that it has the dependencies; sets $python.
environment() {
    local extras=${1-} base stamp wanted
    if [ -n "${PYTHON-}" ]; then
        python=$PYTHON
        return
    fi
    venv=$here/.venv
    python=$venv/bin/python
    stamp=$venv/.installed${extras:+-$extras}
    wanted=$(sha256sum <"$here/setup.py")
    if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    (
        flock 9  # two scripts at once make one environment
        if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
            exit 0
        fi
        if ! "$python" -m pip --version >/dev/null 2>&1; then
            rm -rf "$venv"
            if ! base=$(find_python) && as_root_with_apt; then
                say 'Installing Python.'
                apt_install python3 python3-venv || true
                base=$(find_python)
            fi
            if [ -z "$base" ]; then
                say 'madmail needs Python 3.11 or later, and none was found.'
                exit 1
            fi
            say "Making .venv with $("$base" --version)."
            make_venv "$base" || exit 1
        fi
        say 'Installing the Python packages (once).'
        "$python" -m pip install --quiet --disable-pip-version-check \
            -e "$here${extras:+[$extras]}" >&2 || {
            say 'The Python packages could not be installed.'
            exit 1
        }
        echo "$wanted" >"$stamp"
    ) 9<"$here"
}
