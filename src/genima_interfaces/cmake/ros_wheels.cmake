# ROS 2 from Python wheels: their exported targets still name include directories of the machine that built them
# (/opt/python/...), which CMake refuses. Drop these once all find_package calls are done.
# With an installed ROS 2 there is no such directory and this changes nothing.
function(genima_drop_dead_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(includes ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(includes)
      list(FILTER includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${includes}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL genima_drop_dead_includes)
