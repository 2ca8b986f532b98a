{ lib, stdenv, meson, ninja, pkg-config, boost, bzip2, cli11, curl, fmt, gitMinimal, gtest, libarchive, libseccomp
, nlohmann_json, openssl, sqlite, busybox, pkgsStatic ? { inherit busybox; }, withTests ? false }:

stdenv.mkDerivation {
  pname = "firn";
  version = "0.1.0";
  src = lib.cleanSource ./.;
  outputs = [ "out" "doc" ];

  nativeBuildInputs = [ meson ninja pkg-config ];
  buildInputs = [ boost bzip2 cli11 curl fmt libarchive nlohmann_json openssl sqlite ]
    ++ lib.optionals stdenv.hostPlatform.isLinux [ libseccomp ];
  nativeCheckInputs = [ gitMinimal gtest ];

  doCheck = withTests;
  mesonFlags = [ "-Ddocdir=${placeholder "doc"}/share/doc/firn" "-Dtests=${if withTests then "true" else "false"}" ]
    ++ lib.optionals stdenv.hostPlatform.isLinux [ "-Dbusybox=${pkgsStatic.busybox}/bin/busybox" ];

  meta = {
    description = "Build daemon for Nix users, a drop-in for nix-daemon";
    license = lib.licenses.lgpl21Plus;
    platforms = lib.platforms.unix;
    mainProgram = "firn";
  };
}
