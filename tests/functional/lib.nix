# What the tests' expressions are written with; there is no nixpkgs in them.
rec {
  system = builtins.currentSystem;

  # A derivation whose builder is /bin/sh: Debian's static busybox in the sandbox (its shell finds its own
  # applets), the host's shell and tools without one.
  sh = name: script: attrs: derivation ({
    inherit name system;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
  } // attrs);

  # A fixed output: the hash is of the flat file or of the NAR.
  fixed = name: mode: hash: script: attrs: sh name script ({
    outputHashMode = mode;
    outputHashAlgo = "sha256";
    outputHash = hash;
  } // attrs);
}
