# SPDX-License-Identifier: Apache-2.0
# Compiler flags: C17, strict warnings, ISO floating point (no contraction, so that results repeat).
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

option(AT_WERROR "Warnings are errors" OFF)
set(AT_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined or thread")
option(AT_FUZZ "Build libFuzzer targets (clang)" OFF)

add_compile_definitions(_GNU_SOURCE AT_VERSION="${PROJECT_VERSION}")
add_compile_options(-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
                    -Wpointer-arith -Wwrite-strings -Werror=implicit-function-declaration -Wno-missing-field-initializers
                    -fno-math-errno -ffp-contract=off)
if(AT_WERROR)
    add_compile_options(-Werror)
endif()
if(AT_SANITIZE)
    add_compile_options(-fsanitize=${AT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${AT_SANITIZE})
endif()
if(AT_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
# assert states proven truths and stays on.
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
