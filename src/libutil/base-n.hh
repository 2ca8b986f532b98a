#pragma once

#include <string>
#include <string_view>

// Base-16, Nix's base-32 (alphabet 0123456789abcdfghijklmnpqrsvwxyz, digits from the last bits to the first)
// and base-64.

namespace firn {

enum class Encoding { base16, nix32, base64 };

std::string encode(Encoding encoding, std::string_view bytes);
/// Exact inverse. Throws ErrorKind::badInput for any character or padding that encode() would not produce
/// (base-16 accepts upper case as well).
std::string decode(Encoding encoding, std::string_view text);
/// Number of characters that encode() makes of `size` bytes.
size_t encodedLength(Encoding encoding, size_t size);
bool isNix32Digit(char c);

} // namespace firn
