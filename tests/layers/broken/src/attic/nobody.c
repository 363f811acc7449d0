// SPDX-License-Identifier: Apache-2.0
// A floor that is not in the table.
