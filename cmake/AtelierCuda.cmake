# SPDX-License-Identifier: Apache-2.0
# The CUDA plug-in, libat_cuda.so: built where there is an nvcc, left out with one line elsewhere.
#   AT_CUDA=OFF leaves it out.  AT_CUDA_ARCHS: compute capabilities, "90" or "80;86;89;90".
# It links the CUDA runtime statically and the program's own symbols at load; cublasLt and cuDNN are
# opened at run time, so neither is needed to build.
option(AT_CUDA "Build the CUDA plug-in where nvcc is found" ON)
set(AT_CUDA_ARCHS "90" CACHE STRING "Compute capabilities of the CUDA plug-in")
find_program(AT_NVCC nvcc HINTS /usr/local/cuda/bin)

if(NOT AT_CUDA OR AT_SANITIZE OR AT_FUZZ)
    return()
endif()
if(NOT AT_NVCC)
    message(STATUS "no nvcc: the CUDA plug-in is left out, everything else is built")
    return()
endif()
get_filename_component(nvcc_real ${AT_NVCC} REALPATH)
get_filename_component(nvcc_bin ${nvcc_real} DIRECTORY)
find_path(AT_CUDA_INCLUDE cuda_runtime_api.h HINTS ${nvcc_bin}/../include /usr/local/cuda/include)
find_library(AT_CUDART libcudart_static.a HINTS ${nvcc_bin}/../lib64 ${nvcc_bin}/../lib /usr/local/cuda/lib64)
if(NOT AT_CUDA_INCLUDE OR NOT AT_CUDART)
    message(STATUS "nvcc without the CUDA runtime's header or static library: the CUDA plug-in is left out")
    return()
endif()

set(codes)
foreach(arch ${AT_CUDA_ARCHS})
    list(APPEND codes -gencode=arch=compute_${arch},code=sm_${arch})
endforeach()
list(GET AT_CUDA_ARCHS -1 newest)
list(APPEND codes -gencode=arch=compute_${newest},code=compute_${newest})

file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cuda/*.cu)
file(GLOB kernel_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cuda/*.cuh ${CMAKE_SOURCE_DIR}/src/cuda/*.h)
file(GLOB hosts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cuda/*.c)
set(objects)
foreach(source ${kernels})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    set(source_codes ${codes})
    if(name MATCHES "_90a$") # instructions that compute capability 9.0 alone has
        set(source_codes -gencode=arch=compute_90a,code=sm_90a)
    endif()
    add_custom_command(
        OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
        COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${AT_NVCC} -std=c++17 -O3 ${source_codes} -Xcompiler -fPIC -I${CMAKE_SOURCE_DIR}/src
                -I${CMAKE_SOURCE_DIR}/include -c ${source} -o ${object}
        DEPENDS ${source} ${kernel_headers} ${CMAKE_SOURCE_DIR}/include/atelier/types.h
        COMMENT "CUDA ${name}.cu" VERBATIM)
    list(APPEND objects ${object})
endforeach()
add_library(at_cuda MODULE ${hosts} ${objects})
target_include_directories(at_cuda PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
target_include_directories(at_cuda SYSTEM PRIVATE ${AT_CUDA_INCLUDE})
target_link_libraries(at_cuda PRIVATE ${AT_CUDART} stdc++ Threads::Threads ${CMAKE_DL_LIBS} rt)
target_link_options(at_cuda PRIVATE -Wl,--exclude-libs,ALL)
set_target_properties(at_cuda PROPERTIES OUTPUT_NAME at_cuda LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
