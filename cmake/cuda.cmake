# Whether device code is built, and for what: reads FGSBIR_CUDA, sets FGSBIR_HAS_CUDA, FGSBIR_EMULATED, FGSBIR_CUDA_TOOLKIT,
# FGSBIR_CUDA_ARCHITECTURES and FGSBIR_NO_CUDA_REASON, and enables the language CUDA. To be included from the top folder.
#
# AUTO takes device code in where there are both an NVIDIA device and a CUDA compiler that works: whoever installs on a machine with
# a GPU gets it, and nobody else pays for it with a minute of compiling. ON insists on a compiler, for building on a machine without
# a device, OFF leaves device code out: everything else is the same, and what needs a GPU says why it is not there. EMULATED runs it
# on the CPU, for tests (tests/cpp/cuda_emulation).
set(FGSBIR_HAS_CUDA OFF)
if(NOT DEFINED ENV{CUDACXX} AND NOT DEFINED CMAKE_CUDA_COMPILER)
  find_program(FGSBIR_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin) # JetPack: not on PATH
  mark_as_advanced(FGSBIR_NVCC)
  if(FGSBIR_NVCC)
    set(ENV{CUDACXX} ${FGSBIR_NVCC})
  endif()
endif()
set(FGSBIR_NO_CUDA_REASON "FGSBIR_CUDA was OFF")
if(FGSBIR_CUDA STREQUAL "AUTO")
  set(_devices /dev/nvidiactl /dev/nvhost-gpu /dev/nvgpu /dev/dxg /proc/driver/nvidia/version) # desktop, Jetson, WSL
  set(FGSBIR_NO_CUDA_REASON "no NVIDIA device was seen by the build")
  foreach(_device IN LISTS _devices)
    if(EXISTS ${_device})
      set(FGSBIR_NO_CUDA_REASON "the build found no CUDA compiler that works")
      include(CheckLanguage)
      check_language(CUDA)
      if(CMAKE_CUDA_COMPILER)
        set(FGSBIR_HAS_CUDA ON)
      endif()
      break()
    endif()
  endforeach()
elseif(FGSBIR_CUDA)
  set(FGSBIR_HAS_CUDA ON)
endif()
set(FGSBIR_EMULATED OFF)
if(FGSBIR_CUDA STREQUAL "EMULATED")
  set(FGSBIR_EMULATED ON)
endif()
set(FGSBIR_CUDA_TOOLKIT "")
set(FGSBIR_CUDA_ARCHITECTURES "")
if(FGSBIR_EMULATED)
  set(FGSBIR_CUDA_TOOLKIT "emulated")
  set(FGSBIR_CUDA_ARCHITECTURES "emulated")
elseif(FGSBIR_HAS_CUDA)
  # 87 (Orin) is known to every compiler from CUDA 11.4 on and lets the language be enabled; what is built for follows from the
  # compiler's version. Setting the variable when the caller has set CUDAARCHS would make CMake ignore that.
  set(_default_architectures OFF)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(_default_architectures ON)
    set(CMAKE_CUDA_ARCHITECTURES 87-real)
  endif()
  enable_language(CUDA)
  if(_default_architectures)
    # Machine code for Orin, Hopper and Thor, and PTX that newer and other devices compile on first use. JetPack 6 has CUDA 12.6,
    # which does not know Thor.
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
      set(CMAKE_CUDA_ARCHITECTURES 87-real 90-real 110-real 87-virtual)
    elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)
      set(CMAKE_CUDA_ARCHITECTURES 87-real 90-real 87-virtual)
    else()
      message(FATAL_ERROR "CUDA ${CMAKE_CUDA_COMPILER_VERSION} at ${CMAKE_CUDA_COMPILER} is too old, expected 11.8 or newer: "
        "point CUDACXX at a newer nvcc, or leave device code out with FGSBIR_CUDA=OFF")
    endif()
  endif()
  find_package(CUDAToolkit REQUIRED)
  set(FGSBIR_CUDA_TOOLKIT "${CUDAToolkit_VERSION}")
  string(REPLACE ";" " " FGSBIR_CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
endif()
