<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Support\Facades\DB;

// README
