#pragma once

// Made by vectors/make-vectors with stock Nix: do not edit.

#include <string_view>

// clang-format off

namespace firn::vectors {

inline constexpr std::string_view storeDir = R"~~(/tmp/firn-vectors/store)~~";
/// name in vectors.nix, path of the .drv, known output paths ("out=… dev=…"), ATerm
struct DerivationVector {
    std::string_view name, path, outputs, text;
};
inline constexpr DerivationVector derivationVectors[] = {
    {"leaf", "/tmp/firn-vectors/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv", "out=/tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf",
     R"~~(Derive([("out","/tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf","","")],[],[],"vector-system","/bin/sh",["-c","echo leaf > $out"],[("builder","/bin/sh"),("name","leaf"),("out","/tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf"),("system","vector-system")]))~~"},
    {"threeOutputs", "/tmp/firn-vectors/store/cq5c9sxh81m06mbvc405fx5gybvm2aka-three-outputs-1.0.drv", "dev=/tmp/firn-vectors/store/i57i1ad2v5q9ppzjd7a28v8fkl4c1q4h-three-outputs-1.0-dev doc=/tmp/firn-vectors/store/53vdci6h67gag3zc6n6l4bggb5zginhz-three-outputs-1.0-doc out=/tmp/firn-vectors/store/nv92l9l45crz8mkdaap1qd91ld9wjv48-three-outputs-1.0",
     R"~~(Derive([("dev","/tmp/firn-vectors/store/i57i1ad2v5q9ppzjd7a28v8fkl4c1q4h-three-outputs-1.0-dev","",""),("doc","/tmp/firn-vectors/store/53vdci6h67gag3zc6n6l4bggb5zginhz-three-outputs-1.0-doc","",""),("out","/tmp/firn-vectors/store/nv92l9l45crz8mkdaap1qd91ld9wjv48-three-outputs-1.0","","")],[("/tmp/firn-vectors/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv",["out"]),("/tmp/firn-vectors/store/xpi8knk49kn78h90z84sjxrzlal4y5nq-fixed-flat.drv",["out"])],["/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference","/tmp/firn-vectors/store/aka1hr27wd2xb7hjwaiiz0v0b89g5cb7-source-tree"],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("dev","/tmp/firn-vectors/store/i57i1ad2v5q9ppzjd7a28v8fkl4c1q4h-three-outputs-1.0-dev"),("doc","/tmp/firn-vectors/store/53vdci6h67gag3zc6n6l4bggb5zginhz-three-outputs-1.0-doc"),("flat","/tmp/firn-vectors/store/2znh7ngwb8lwawvrxc8qmgjrlgr32fah-fixed-flat"),("leaf","/tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf"),("name","three-outputs-1.0"),("out","/tmp/firn-vectors/store/nv92l9l45crz8mkdaap1qd91ld9wjv48-three-outputs-1.0"),("outputs","out dev doc"),("src","/tmp/firn-vectors/store/aka1hr27wd2xb7hjwaiiz0v0b89g5cb7-source-tree"),("system","vector-system"),("textWithReference","/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference")]))~~"},
    {"dependant", "/tmp/firn-vectors/store/g7iw22y6lblq6fxq9b6wx6badgsilwa1-dependant.drv", "out=/tmp/firn-vectors/store/pr9kia1f3f0a3bf7zxwabbi37nslnfdg-dependant",
     R"~~(Derive([("out","/tmp/firn-vectors/store/pr9kia1f3f0a3bf7zxwabbi37nslnfdg-dependant","","")],[("/tmp/firn-vectors/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv",["out"]),("/tmp/firn-vectors/store/9qx3by83sz13g12cryl6bckwxa6mpgh3-fixed-recursive.drv",["out"]),("/tmp/firn-vectors/store/cq5c9sxh81m06mbvc405fx5gybvm2aka-three-outputs-1.0.drv",["dev","doc","out"]),("/tmp/firn-vectors/store/gwvm0hjzbyf4ifdrrmr9r72ddr8yqmxx-fixed-md5.drv",["out"]),("/tmp/firn-vectors/store/hgjw89ssp97276dlzyibrbpzx2f29jjh-fixed-sha512.drv",["out"])],[],"vector-system","/bin/sh",["/tmp/firn-vectors/store/i57i1ad2v5q9ppzjd7a28v8fkl4c1q4h-three-outputs-1.0-dev"],[("builder","/bin/sh"),("docs","/tmp/firn-vectors/store/53vdci6h67gag3zc6n6l4bggb5zginhz-three-outputs-1.0-doc"),("inputs","/tmp/firn-vectors/store/nv92l9l45crz8mkdaap1qd91ld9wjv48-three-outputs-1.0 /tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf /tmp/firn-vectors/store/gxav5br5g8ainapxx12anyfc96pcirx5-fixed-recursive /tmp/firn-vectors/store/qffaxzch7hr91fh3g1ji5flj7ddb95pg-fixed-sha512 /tmp/firn-vectors/store/v8m7dmdg2n6ggd5q6alil99ca8f027pq-fixed-md5"),("name","dependant"),("out","/tmp/firn-vectors/store/pr9kia1f3f0a3bf7zxwabbi37nslnfdg-dependant"),("system","vector-system")]))~~"},
    {"awkward", "/tmp/firn-vectors/store/pdfl36x3j30q4pk496agv6hasjrp7jz2-awkward+name?=_.x.drv", "out=/tmp/firn-vectors/store/bqvm6b8zmpg0r2wif4cnnpvwddvfxj06-awkward+name?=_.x",
     R"~~(Derive([("out","/tmp/firn-vectors/store/bqvm6b8zmpg0r2wif4cnnpvwddvfxj06-awkward+name?=_.x","","")],[],[],"vector-system","/bin/sh",["","quote\" backslash\\ newline\n tab\t return\r dollar$ é ☃","\\n"],[("1 strange=name","x"),("builder","/bin/sh"),("empty",""),("false",""),("list","1 two three"),("name","awkward+name?=_.x"),("null",""),("out","/tmp/firn-vectors/store/bqvm6b8zmpg0r2wif4cnnpvwddvfxj06-awkward+name?=_.x"),("system","vector-system"),("true","1")]))~~"},
    {"fixedFlat", "/tmp/firn-vectors/store/xpi8knk49kn78h90z84sjxrzlal4y5nq-fixed-flat.drv", "out=/tmp/firn-vectors/store/2znh7ngwb8lwawvrxc8qmgjrlgr32fah-fixed-flat",
     R"~~(Derive([("out","/tmp/firn-vectors/store/2znh7ngwb8lwawvrxc8qmgjrlgr32fah-fixed-flat","sha256","a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a")],[("/tmp/firn-vectors/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv",["out"])],[],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("name","fixed-flat"),("needs","/tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf"),("out","/tmp/firn-vectors/store/2znh7ngwb8lwawvrxc8qmgjrlgr32fah-fixed-flat"),("outputHash","0sjjj9z1dhilhpc8pq4154czrb79z9cm044jvn75kxcjv6v5l2m5"),("outputHashAlgo","sha256"),("system","vector-system")]))~~"},
    {"fixedRecursive", "/tmp/firn-vectors/store/9qx3by83sz13g12cryl6bckwxa6mpgh3-fixed-recursive.drv", "out=/tmp/firn-vectors/store/gxav5br5g8ainapxx12anyfc96pcirx5-fixed-recursive",
     R"~~(Derive([("out","/tmp/firn-vectors/store/gxav5br5g8ainapxx12anyfc96pcirx5-fixed-recursive","r:sha256","9956b58c4c8f8555264f307da61100c5355a21f22cc7f3b1cd4da3124bd7f715")],[],[],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("name","fixed-recursive"),("out","/tmp/firn-vectors/store/gxav5br5g8ainapxx12anyfc96pcirx5-fixed-recursive"),("outputHash","sha256-mVa1jEyPhVUmTzB9phEAxTVaIfIsx/OxzU2jEkvX9xU="),("outputHashMode","recursive"),("system","vector-system")]))~~"},
    {"fixedSha512", "/tmp/firn-vectors/store/hgjw89ssp97276dlzyibrbpzx2f29jjh-fixed-sha512.drv", "out=/tmp/firn-vectors/store/qffaxzch7hr91fh3g1ji5flj7ddb95pg-fixed-sha512",
     R"~~(Derive([("out","/tmp/firn-vectors/store/qffaxzch7hr91fh3g1ji5flj7ddb95pg-fixed-sha512","r:sha512","a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238bc13626e43dcb38ddb082488927ec904fb42057443983e88585179d50551afe62")],[],[],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("name","fixed-sha512"),("out","/tmp/firn-vectors/store/qffaxzch7hr91fh3g1ji5flj7ddb95pg-fixed-sha512"),("outputHash","a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238bc13626e43dcb38ddb082488927ec904fb42057443983e88585179d50551afe62"),("outputHashAlgo","sha512"),("outputHashMode","recursive"),("system","vector-system")]))~~"},
    {"fixedMd5", "/tmp/firn-vectors/store/gwvm0hjzbyf4ifdrrmr9r72ddr8yqmxx-fixed-md5.drv", "out=/tmp/firn-vectors/store/v8m7dmdg2n6ggd5q6alil99ca8f027pq-fixed-md5",
     R"~~(Derive([("out","/tmp/firn-vectors/store/v8m7dmdg2n6ggd5q6alil99ca8f027pq-fixed-md5","md5","9dd4e461268c8034f5c8564e155c67a6")],[],[],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("name","fixed-md5"),("out","/tmp/firn-vectors/store/v8m7dmdg2n6ggd5q6alil99ca8f027pq-fixed-md5"),("outputHash","9dd4e461268c8034f5c8564e155c67a6"),("outputHashAlgo","md5"),("system","vector-system")]))~~"},
    {"floating", "/tmp/firn-vectors/store/6mbxj7q0n9wjk2hldd2rms5hhq4wga7r-floating.drv", "",
     R"~~(Derive([("lib","","r:sha256",""),("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",["-c","echo $lib > $out; echo lib > $lib"],[("PATH","/bin:/usr/bin"),("builder","/bin/sh"),("lib","/0sra2y18lr3h6j58qjm0w46yv36h1wjmilb09n8aimdpivdymscx"),("name","floating"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("outputHashAlgo","sha256"),("outputHashMode","recursive"),("outputs","out lib"),("system","x86_64-linux")]))~~"},
    {"onFloating", "/tmp/firn-vectors/store/ia50p2b00y4bh6c9asy25h9w8f1vzvv2-on-floating.drv", "",
     R"~~(Derive([("out","","r:sha256","")],[("/tmp/firn-vectors/store/6mbxj7q0n9wjk2hldd2rms5hhq4wga7r-floating.drv",["lib"])],[],"x86_64-linux","/bin/sh",["-c","cat /1hghvs3i4mgi5x1ypjkjg8pjd8ql7rj5ylcls2x4ax6aqf27qg0f > $out; echo $out >> $out"],[("PATH","/bin:/usr/bin"),("builder","/bin/sh"),("name","on-floating"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("outputHashAlgo","sha256"),("outputHashMode","recursive"),("system","x86_64-linux")]))~~"},
    {"deferred", "/tmp/firn-vectors/store/faxxdlix27ghhy5ldyhxbn20hvnc0wn3-deferred.drv", "",
     R"~~(Derive([("out","","","")],[("/tmp/firn-vectors/store/6mbxj7q0n9wjk2hldd2rms5hhq4wga7r-floating.drv",["out"])],[],"x86_64-linux","/bin/sh",["-c","echo /0m9ldr3qhncklq081zn2zaxd2r0qm5x4fw6f6csjl3fkcj6064pm > $out"],[("PATH","/bin:/usr/bin"),("builder","/bin/sh"),("name","deferred"),("out",""),("system","x86_64-linux")]))~~"},
    {"impure", "/tmp/firn-vectors/store/r0kg5db74d62kygpl76z1j4xfs3fpw09-impure.drv", "",
     R"~~(Derive([("out","","r:sha256","impure")],[],[],"vector-system","/bin/sh",[],[("builder","/bin/sh"),("name","impure"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("system","vector-system")]))~~"},
    {"structured", "/tmp/firn-vectors/store/8hawkdgiq6vxr2azy5gaprc7692dkij4-structured.drv", "dev=/tmp/firn-vectors/store/i39flsv9bnma2l3pfqc0fi085xb9payx-structured-dev out=/tmp/firn-vectors/store/wgc3w50g8v684izfgscir39n1sd85qk8-structured",
     R"~~(Derive([("dev","/tmp/firn-vectors/store/i39flsv9bnma2l3pfqc0fi085xb9payx-structured-dev","",""),("out","/tmp/firn-vectors/store/wgc3w50g8v684izfgscir39n1sd85qk8-structured","","")],[],["/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference"],"x86_64-linux","/bin/sh",["-c","/bin/mkdir /1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9 /02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz; /bin/cp .attrs.sh .attrs.json /1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"],[("__json","{\"9digit\":\"x\",\"PATH\":\"/bin:/usr/bin\",\"_underscore9\":\"x\",\"builder\":\"/bin/sh\",\"emptyList\":[],\"emptyObject\":{},\"exportReferencesGraph\":{\"graph\":[\"/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference\"]},\"fraction\":1.5,\"fractionList\":[\"a\",0.5],\"integer\":42,\"list\":[\"a b\",1,true,false,null,2],\"name\":\"structured\",\"negative\":-7,\"nestedList\":[\"a\",[\"b\"]],\"nestedObject\":{\"inner\":{\"x\":1}},\"no\":false,\"not-a-name\":\"x\",\"nothing\":null,\"object\":{\"n\":1,\"strange key's\":\"v\",\"y\":true,\"z\":null},\"outputs\":[\"out\",\"dev\"],\"string\":\"it's a \\\"string\\\"\\nwith two lines $HOME é\",\"system\":\"x86_64-linux\",\"whole\":3,\"yes\":true}"),("dev","/tmp/firn-vectors/store/i39flsv9bnma2l3pfqc0fi085xb9payx-structured-dev"),("out","/tmp/firn-vectors/store/wgc3w50g8v684izfgscir39n1sd85qk8-structured")]))~~"},
    {"selfReference", "/tmp/firn-vectors/store/laxs84r2rbspj4l1nf6vsajfa5xlgkpz-self-reference.drv", "out=/tmp/firn-vectors/store/167yi3gya3xhsb2vkhlm5r24h241sb00-self-reference",
     R"~~(Derive([("out","/tmp/firn-vectors/store/167yi3gya3xhsb2vkhlm5r24h241sb00-self-reference","","")],[],["/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference"],"x86_64-linux","/bin/sh",["-c","echo $out /tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference > $out"],[("PATH","/bin:/usr/bin"),("builder","/bin/sh"),("name","self-reference"),("out","/tmp/firn-vectors/store/167yi3gya3xhsb2vkhlm5r24h241sb00-self-reference"),("system","x86_64-linux")]))~~"},
};

/// path, content address as the store has it, references (blanks between)
struct AddedVector {
    std::string_view path, contentAddress, references;
};
inline constexpr AddedVector addedVectors[] = {
    {"/tmp/firn-vectors/store/2v9759s4498b39x3w8s4jy7bhzhhhm0a-self-reference",
     "fixed:r:sha256:0iapknzax88z0h6z8v3q505dqjbscc45clr161vh3y2f5mxgg1ar",
     "/tmp/firn-vectors/store/2v9759s4498b39x3w8s4jy7bhzhhhm0a-self-reference /tmp/firn-vectors/store/63ygd9ch9wj36cyk8l7cmpg13hkdc9cq-text-with-reference"},
    {"/tmp/firn-vectors/store/407qyahjmy0llmln1jm0ri1s9942las8-file",
     "fixed:sha1:w2fbr6wy4n3cd65mldwr2zalxcnhzwvz",
     ""},
    {"/tmp/firn-vectors/store/4mmy4vya1ij7w50xzvn9r37zb559y7j6-file",
     "fixed:r:sha512:37pm6y2xc7bbjizz62c41rx3v1lyxyid57x5anyadcxy7hx9jghiahgvy1xvd6dq2lpx61lf4nz02n12knp0hli6aw2cz1fww5n3kqi",
     ""},
    {"/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference",
     "text:sha256:0dhnjzs53rbysmbcq4p64mc5m9awlxmnkscff7gijv9l7izn5lym",
     "/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text"},
    {"/tmp/firn-vectors/store/8k29kn4cc3n1dz1nbbyvg938zyad4j0w-tree",
     "fixed:r:sha256:0qqyzigfhdgm5bv31m9rldk3s702d7ibc9r2sbx2qzwqhsv5nncm",
     ""},
    {"/tmp/firn-vectors/store/amm46wvlc3gq1qylpn785d7r490qv4n8-file",
     "fixed:sha256:1bf9i86fv0v2sizbdwdca98h6bgkw6i264gm9m15lnxx3h77v32v",
     ""},
    {"/tmp/firn-vectors/store/fwgxvjms9d9yzphzbbrjl0krsia0hsm1-file",
     "fixed:r:sha1:19f5dsaj7lnp6pqms2fjp3r8zm8fj2wj",
     ""},
    {"/tmp/firn-vectors/store/jqw2viyq4hmxvfgqprj7vssmmcyjhzh2-file",
     "fixed:r:md5:78mldsy0yla3iaw5srm2a88v0n",
     ""},
    {"/tmp/firn-vectors/store/qzgqsnx5020xsy7ghwwh40id7ga4klim-file",
     "fixed:sha512:2cp4jmpr681mmmv23las9wylil23cq5ac2ycdry2xkycwfkps4vkn44vjxxj3mnaqh6bba5129wb2qv1103awbrgkz97aha34knizi0",
     ""},
    {"/tmp/firn-vectors/store/rvq5s08nhbp46njwqb6k2qhv00gxr0vk-file",
     "fixed:r:sha256:14mmq3m31j6yi2b551r52i6jhxsa98iqfjp2z0wkv5i7vq8ikm96",
     ""},
    {"/tmp/firn-vectors/store/zav7xy7s4m460chmx2qqij8r8l4f91m6-file",
     "fixed:md5:0la52grkl7syql4gpq10v11ykc",
     ""},
};

inline constexpr std::string_view secretKey = R"~~(vectors-1:tvH+dN9Unm1BxLHY36wdjJlidG/qdjoowO12eK58Wrs6aASbB/CcfxS4xUsKoGzFAZUIxgn9pjHaTpMJlPv9aA==)~~";
inline constexpr std::string_view publicKey = R"~~(vectors-1:OmgEmwfwnH8UuMVLCqBsxQGVCMYJ/aYx2k6TCZT7/Wg=)~~";
inline constexpr std::string_view cacheSecretKey = R"~~(cache.example.org-1:MCAjr2bWXaCW+e/p+qOlJGEwK3yWQLeniUuTLKMjvjpd4ol/RDT1MRn0YglaXTkmqUC5OIsgjYluZ72QeZwMRA==)~~";
inline constexpr std::string_view cachePublicKey = R"~~(cache.example.org-1:XeKJf0Q09TEZ9GIJWl05JqlAuTiLII2Jbme9kHmcDEQ=)~~";

/// path, NAR hash, NAR size, references, signatures by secretKey and cacheSecretKey (blanks between)
struct SignedVector {
    std::string_view path, narHash;
    unsigned long narSize;
    std::string_view references, signatures;
};
inline constexpr SignedVector signedVectors[] = {
    {"/tmp/firn-vectors/store/167yi3gya3xhsb2vkhlm5r24h241sb00-self-reference",
     "sha256-BkWjq+aMxqbqjLs/8haO+S+TWqy5Slpe9rLhukovI40=",
     264,
     "/tmp/firn-vectors/store/167yi3gya3xhsb2vkhlm5r24h241sb00-self-reference /tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference",
     "cache.example.org-1:x/tlXxZY1qp+xL8sSkzanyPFB4F8N2Q+BpT8Yk9o89QI/MfrS9vNdooLHYUAtuNLVpAY4BCl1/Q5QApKH2aICg== vectors-1:2E7vUMGf0H3Td/E8hc3UVPclqwJe+3gZDJcC77k8cKiqhFc/2MxXD3N6LHfQy4vrIC2MajzOWbckaVmt+nNMDQ=="},
    {"/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference",
     "sha256-SXS+J53A78ac8DQU0Cb7YzIPkYFKQTlTtBQvtiJkOHM=",
     192,
     "/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text",
     "cache.example.org-1:L6iho3mQfuaLAs2SYo/ejtrWwuVdcBPfIpZf3jTA5SvMQTZoi/7wSv/6KSjeIS7aNc42WOcs1zn9mkGMc/EwAw== vectors-1:WTup2hnu2CcYm3rwm6RVyfkCXgQaEPmdbNFPp7/A8b/RKACMgHJ5HCs3ihvx1ymoywlcOUxQR4NKq0IlGLaBBw=="},
};

/// name in vectors.nix, output, JSON of the signed realisation as the store gives it
struct RealisationVector {
    std::string_view name, output, json;
};
inline constexpr RealisationVector realisationVectors[] = {
    {"floating", "out",
     R"~~({"dependentRealisations":{},"id":"sha256:c4e339eab7f340626faa6359d26acd9180014586cfb5cb50c8ec65060f529ab1!out","outPath":"38gkx7yxyd38zx73sjf5sibhlx0rbcvb-floating","signatures":["vectors-1:OYl3+vVSfbP3EUnaLO0ML86BHuzA6tHCaDwu/dZGHxGP3dxOfUXPKc+ocZllZM0dJC5QWsrRiaRoQiu7zbbcAA=="]})~~"},
    {"floating", "lib",
     R"~~({"dependentRealisations":{},"id":"sha256:c4e339eab7f340626faa6359d26acd9180014586cfb5cb50c8ec65060f529ab1!lib","outPath":"4f6d5xl7xvb4kx1vaimwx8vb8759sdn8-floating-lib","signatures":["vectors-1:4QtQGDP8UBJlRfacV+VcvO1caSDGTUk7E2deEJO5L2vQHiDNYT9CBn5ItbIX5Civohi1szrQPFgRCy1Bn9raBQ=="]})~~"},
    {"onFloating", "out",
     R"~~({"dependentRealisations":{},"id":"sha256:43d41d03b6f93263c542fa2b386cff51aee55185df872f6c993e31781c688d6b!out","outPath":"y4p2nrqbz11jjk604h48fixpbcyrii35-on-floating","signatures":["vectors-1:sTJZ8YFg+iPdiaPUTABxKxHSzAic43is/jHQtX+bWpud5WUOUUqoXjnWL8EGWNrevZYESVgjxps5FW4jvtyzBw=="]})~~"},
    {"deferred", "out",
     R"~~({"dependentRealisations":{"sha256:c4e339eab7f340626faa6359d26acd9180014586cfb5cb50c8ec65060f529ab1!out":"38gkx7yxyd38zx73sjf5sibhlx0rbcvb-floating"},"id":"sha256:ec640a11c5334b8124fdae3361ae233b8cb143829af24c8543aa62957b4546d2!out","outPath":"pmkmnh3r5qzqbvawy8advksh2wj9qa2h-deferred","signatures":["vectors-1:DHRKotstJHB34qNJelpzNRY5VvRGoVJJ9jZLFtwsCSr3Exp9C6aU0xNw7HOlk0AtIUP6MGjaZffka43h48c8BA=="]})~~"},
};

inline constexpr std::string_view structuredJson = R"~~({"9digit":"x","PATH":"/bin:/usr/bin","_underscore9":"x","builder":"/bin/sh","emptyList":[],"emptyObject":{},"exportReferencesGraph":{"graph":["/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference"]},"fraction":1.5,"fractionList":["a",0.5],"graph":[{"ca":"text:sha256:0dhnjzs53rbysmbcq4p64mc5m9awlxmnkscff7gijv9l7izn5lym","closureSize":312,"narHash":"sha256:0wrqchibcbqlni9kjhaah68hyck3zckd051ly2fcdvy0klkvwx29","narSize":192,"path":"/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference","references":["/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text"]},{"ca":"text:sha256:09fsj16dw20cb6wcix9lnnqnxxi40yl129dy11hwqwd6kyhsjh7c","closureSize":120,"narHash":"sha256:1dcx222mwzii744z0l77klx9x5pbqxpd2d9hbkdlx8ybnh9ss6k4","narSize":120,"path":"/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text","references":[]}],"integer":42,"list":["a b",1,true,false,null,2],"name":"structured","negative":-7,"nestedList":["a",["b"]],"nestedObject":{"inner":{"x":1}},"no":false,"not-a-name":"x","nothing":null,"object":{"n":1,"strange key's":"v","y":true,"z":null},"outputs":{"dev":"/tmp/firn-vectors/store/i39flsv9bnma2l3pfqc0fi085xb9payx-structured-dev","out":"/tmp/firn-vectors/store/wgc3w50g8v684izfgscir39n1sd85qk8-structured"},"string":"it's a \"string\"\nwith two lines $HOME é","system":"x86_64-linux","whole":3,"yes":true})~~";
inline constexpr std::string_view structuredShell = R"~~(declare PATH='/bin:/usr/bin'
declare _underscore9='x'
declare builder='/bin/sh'
declare -a emptyList=()
declare -A emptyObject=()
declare integer=42
declare -a list=('a b' 1 1  '' 2 )
declare name='structured'
declare negative=-7
declare no=
declare nothing=''
declare -A object=(['n']=1 ['strange key'\''s']='v' ['y']=1 ['z']='' )
declare -A outputs=(['dev']='/tmp/firn-vectors/store/i39flsv9bnma2l3pfqc0fi085xb9payx-structured-dev' ['out']='/tmp/firn-vectors/store/wgc3w50g8v684izfgscir39n1sd85qk8-structured' )
declare string='it'\''s a "string"
with two lines $HOME é'
declare system='x86_64-linux'
declare whole=3
declare yes=1
)~~";
inline constexpr std::string_view structuredGraph = R"~~([{"ca": "text:sha256:0dhnjzs53rbysmbcq4p64mc5m9awlxmnkscff7gijv9l7izn5lym", "closureSize": 312, "narHash": "sha256:0wrqchibcbqlni9kjhaah68hyck3zckd051ly2fcdvy0klkvwx29", "narSize": 192, "path": "/tmp/firn-vectors/store/6yxhr0bxr0208ki90gnxfgdz76lha3mv-text-with-reference", "references": ["/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text"]}, {"ca": "text:sha256:09fsj16dw20cb6wcix9lnnqnxxi40yl129dy11hwqwd6kyhsjh7c", "closureSize": 120, "narHash": "sha256:1dcx222mwzii744z0l77klx9x5pbqxpd2d9hbkdlx8ybnh9ss6k4", "narSize": 120, "path": "/tmp/firn-vectors/store/dg1gqra8pc2sb9x9x051chzzgsqj2500-text", "references": []}])~~";

} // namespace firn::vectors
