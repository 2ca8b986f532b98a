# Firn itself as a derivation without nixpkgs: the host's compiler and libraries are used where they lie and reach the
# sandbox through `sandbox-paths`. For the main job of scripts/quickstart; a distribution would package Firn as flake.nix does.
{ system ? builtins.currentSystem, jobs ? 2 }:

let
  top = toString ../.;
  # Of the checkout's own folders only sources; build directories have any name that starts with "build".
  wanted = path: type:
    let name = baseNameOf path;
    in dirOf path != top || builtins.match "build.*|result.*|[.]git|[.]pytest_cache" name == null;
in
derivation {
  name = "firn";
  inherit system;
  outputs = [ "out" "doc" ];
  src = builtins.filterSource wanted ../.;
  builder = "/bin/sh";
  PATH = "/usr/bin:/bin";
  CXX = "g++"; # not through ccache, which has nowhere to keep anything
  enableParallelBuilding = true;
  args = [
    "-euc"
    ''
      cp -r "$src" source
      chmod -R u+w source
      meson setup work source --prefix="$out" --libdir=lib --buildtype=release --strip \
        -Dtests=false -Ddocdir="$doc/share/doc/firn"
      ninja -C work -j ${toString jobs}
      meson install -C work --quiet
      "$out/bin/firn" --version
    ''
  ];
}
