{
  description = "A stand-in for nixpkgs with just the names that Firn's flake uses, so that it can be evaluated offline";

  outputs = { self }:
    let
      lib = {
        genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
        optionals = condition: list: if condition then list else [ ];
        cleanSource = path: builtins.path { inherit path; name = "source"; filter = path: type: baseNameOf path == "meson.build"; };
        licenses.lgpl21Plus.spdxId = "LGPL-2.1-or-later";
        platforms.unix = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      };
      package = system: name: derivation { inherit name system; builder = "/bin/sh"; };
      forSystem = system:
        let
          isLinux = builtins.match ".*-linux" system != null;
          mkDerivation = args:
            derivation
              (removeAttrs args [ "meta" "nativeBuildInputs" "buildInputs" "nativeCheckInputs" "doCheck" "mesonFlags" ] // {
                inherit system;
                name = "${args.pname}-${args.version}";
                builder = "/bin/sh";
                inputs = args.nativeBuildInputs ++ args.buildInputs ++ args.nativeCheckInputs;
                flags = args.mesonFlags;
              }) // { inherit (args) meta doCheck; };
          overridable = f: args: f args // { override = more: overridable f (args // more); };
          named = builtins.listToAttrs (map (name: { inherit name; value = package system name; }) [
            "meson" "ninja" "pkg-config" "boost" "bzip2" "cli11" "curl" "fmt" "gitMinimal" "gtest" "libarchive" "libseccomp"
            "nlohmann_json" "openssl" "sqlite" "busybox" "ccache" "clang-tools"
          ]);
          pkgs = named // {
            inherit lib;
            stdenv = { inherit mkDerivation; hostPlatform = { inherit isLinux; }; };
            pkgsStatic = { inherit (named) busybox; };
            python3Packages.pytest = package system "pytest";
            mkShell = args: derivation { name = "shell"; inherit system; builder = "/bin/sh"; inputs = args.inputsFrom ++ args.packages; };
            callPackage = file: args:
              let f = import file;
              in overridable f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // args);
          };
        in
        pkgs;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs lib.platforms.unix forSystem;
    };
}
