{
  description = "Firn, a build daemon for Nix users: a drop-in for nix-daemon";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forEach = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      firn = pkgs: pkgs.callPackage ./package.nix { };
    in
    {
      packages = forEach (pkgs: { default = firn pkgs; });

      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (firn pkgs) ];
          packages = [ pkgs.ccache pkgs.clang-tools pkgs.python3Packages.pytest ];
        };
      });

      checks = forEach (pkgs: {
        unit-tests = (firn pkgs).override { withTests = true; };
      });
    };
}
