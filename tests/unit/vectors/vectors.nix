# Derivations whose texts, hashes and paths the unit tests compare with what stock Nix made of them.
let
  system = "vector-system";
  base = { inherit system; builder = "/bin/sh"; };
  # Built for real while the vectors are made, so they must fit the machine.
  real = { system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; };
  source = builtins.path { name = "source-tree"; path = ./tree; };
  text = builtins.toFile "text" "A text.\n";
  textWithReference = builtins.toFile "text-with-reference" "It refers to ${text}.\n";
in rec {
  inherit source text textWithReference;

  leaf = derivation (base // { name = "leaf"; args = [ "-c" "echo leaf > $out" ]; });
  threeOutputs = derivation (base // {
    name = "three-outputs-1.0";
    outputs = [ "out" "dev" "doc" ];
    src = source;
    inherit textWithReference leaf;
    flat = fixedFlat;
  });
  dependant = derivation (base // {
    name = "dependant";
    args = [ threeOutputs.dev ];
    inputs = [ threeOutputs.out leaf fixedRecursive fixedSha512 fixedMd5 ];
    docs = threeOutputs.doc;
  });
  awkward = derivation (base // {
    name = "awkward+name?=_.x";
    args = [ "" "quote\" backslash\\ newline\n tab\t return\r dollar$ é ☃" "\\n" ];
    "1 strange=name" = "x";
    empty = "";
    true = true;
    false = false;
    list = [ 1 "two" [ "three" ] ];
    null = null;
  });

  fixedFlat = derivation (base // {
    name = "fixed-flat";
    outputHashAlgo = "sha256";
    outputHash = "0sjjj9z1dhilhpc8pq4154czrb79z9cm044jvn75kxcjv6v5l2m5";
    needs = leaf;
  });
  fixedRecursive = derivation (base // {
    name = "fixed-recursive";
    outputHashMode = "recursive";
    outputHash = "sha256-mVa1jEyPhVUmTzB9phEAxTVaIfIsx/OxzU2jEkvX9xU=";
  });
  fixedSha512 = derivation (base // {
    name = "fixed-sha512";
    outputHashMode = "recursive";
    outputHashAlgo = "sha512";
    outputHash = builtins.hashString "sha512" "x";
  });
  fixedMd5 = derivation (base // {
    name = "fixed-md5";
    outputHashAlgo = "md5";
    outputHash = builtins.hashString "md5" "x";
  });

  floating = derivation (real // {
    name = "floating";
    outputs = [ "out" "lib" ];
    args = [ "-c" "echo $lib > $out; echo lib > $lib" ];
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  });
  onFloating = derivation (real // {
    name = "on-floating";
    args = [ "-c" "cat ${floating.lib} > $out; echo $out >> $out" ];
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  });
  deferred = derivation (real // { name = "deferred"; args = [ "-c" "echo ${floating} > $out" ]; });
  impure = derivation (base // { name = "impure"; __impure = true; });

  structured = derivation (real // {
    name = "structured";
    __structuredAttrs = true;
    outputs = [ "out" "dev" ];
    args = [
      "-c"
      "/bin/mkdir ${builtins.placeholder "out"} ${builtins.placeholder "dev"}; /bin/cp .attrs.sh .attrs.json ${builtins.placeholder "out"}"
    ];
    exportReferencesGraph.graph = [ textWithReference ];
    string = "it's a \"string\"\nwith two lines $HOME é";
    integer = 42;
    negative = -7;
    whole = 3.0;
    fraction = 1.5;
    yes = true;
    no = false;
    nothing = null;
    list = [ "a b" 1 true false null 2.0 ];
    emptyList = [ ];
    nestedList = [ "a" [ "b" ] ];
    fractionList = [ "a" 0.5 ];
    object = { "strange key's" = "v"; n = 1; y = true; z = null; };
    emptyObject = { };
    nestedObject.inner.x = 1;
    "not-a-name" = "x";
    _underscore9 = "x";
    "9digit" = "x";
  });

  selfReference = derivation (real // {
    name = "self-reference";
    args = [ "-c" "echo $out ${textWithReference} > $out" ];
  });
}
