#pragma once

#include "firn/daemon.hh"

namespace firn::doctor {

struct DoctorOptions {
    DaemonOptions daemon; ///< of the daemon that is asked about
    bool json = false;
};

/// Says on standard output what a daemon started here and now would find. Returns the exit status: 0 all is
/// well, 1 it works with limits, 2 it does not work.
int runDoctor(const DoctorOptions &options);

} // namespace firn::doctor
