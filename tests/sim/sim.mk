# The simulator: two sessions, a virtual clock, a seeded network.
SIM_OBJ := $(patsubst tests/sim/%.c,$(BUILD)/obj/tests/sim/%.o,$(sort $(wildcard tests/sim/*.c)))
SIM := $(BUILD)/tests/sim/sim

$(SIM): $(SIM_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(SIM_OBJ) $(LIB) $(LIB_LIBS) -lm

sim: $(SIM)
	$(SIM) --seeds 1-1000
	$(SIM) --split 1-1000
	$(SIM) --soak 1d

sim-short: $(SIM)
	$(SIM) --seeds 1-150
	$(SIM) --split 1-150
	$(SIM) --soak 6h

sim-long: $(SIM)
	$(SIM) --seeds 1001-13000
	$(SIM) --split 1001-21000
	$(SIM) --soak 7d

-include $(SIM_OBJ:.o=.d)
.PHONY: sim sim-short sim-long
