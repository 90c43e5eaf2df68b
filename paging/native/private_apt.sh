# Sourced by the scripts that take packages apart: apt on lists and archives of its own, which leaves the system's as they are.
#
#   private_apt_begin DIRECTORY SUITE...    configuration and lists for these suites of the mirror that this machine uses
#   private_apt_fetch PACKAGE...            download into DIRECTORY/archives
#   $private_apt                            the options, for apt-cache

private_apt_begin() {
    apt_directory=$1
    shift
    mkdir -p "$apt_directory/lists/partial" "$apt_directory/archives/partial"
    # Both formats of sources; the security archive is another tree than the mirror's main one.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" { print $2 } $1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /:\/\//) print $i }' |
        grep -v -- security | grep '/debian/*$' | head -n 1)
    if [ -z "$mirror" ]; then
        echo "no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: add one, then run this again" >&2
        exit 1
    fi
    for suite in "$@"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done > "$apt_directory/sources.list"
    private_apt="-o Dir::Etc::sourcelist=$apt_directory/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists=$apt_directory/lists -o Dir::Cache=$apt_directory
        -o APT::Sandbox::User=root -o Acquire::Languages=none"
    apt-get $private_apt -qq update
}

private_apt_fetch() {
    (cd "$apt_directory/archives" && apt-get $private_apt -qq download "$@")
}
